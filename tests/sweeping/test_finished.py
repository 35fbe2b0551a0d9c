"""Whether a trial's folder holds its results, also if these are older than a field of the configuration."""

import dataclasses
import json

from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.sweep import is_finished
from tests.helpers.run_folders import made_results


def test_a_field_that_is_newer_than_the_results_has_its_default(tmp_path):
    config = Config(run_dir=tmp_path)
    results = made_results(config)
    del results["config"]["eval"]["ood"]
    (tmp_path / "results.json").write_text(json.dumps(results | {"config": plain(results["config"])}))
    assert is_finished(Trial("trial", {}, config))
    other = dataclasses.replace(config, eval=dataclasses.replace(config.eval, ood="cifar100"))
    assert not is_finished(Trial("trial", {}, other))

"""The fields of a configuration that decide no weights: where a run lies, and how it is computed."""

NO_WEIGHTS = frozenset(
    {
        *("run_dir", "resume", "device", "imports", "data.dir", "data.download", "data.source", "data.num_workers"),
        *("train.checkpoint_every_steps", "train.keep_checkpoints", "train.profile", "train.wandb_project"),
        *("train.compile", "train.compile_mode", "train.deterministic", "augment.backend"),
    }
)

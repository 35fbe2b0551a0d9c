"""From run folders to tables and figures: what `python -m fastmagn.report` is made of.

runs.py reads folders, experiments.py groups seeds, tables.py and figure_data.py compute (fractions, no layout),
formats.py and figures.py show it (per cent), document.py puts all together. paper.py has the paper's numbers.
page.py makes report.html of it with assets/; heat_maps.py, gallery.py, mistakes.py and provenance.py are its parts.
"""

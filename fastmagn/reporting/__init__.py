"""From run folders to tables and figures: the code of `python -m fastmagn.report`.

runs.py reads folders. experiments.py groups runs that differ in their seed. tables.py and figure_data.py compute
numbers (fractions, no layout). formats.py and figures.py show them (per cent). document.py puts all together. paper.py
has the paper's numbers. page.py makes report.html with assets/; heat_maps.py, gallery.py, mistakes.py and provenance.py
make its parts.
"""

"""How Sphinx builds the site; `make docs`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

project = "adpur"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
html_theme = "furo"
html_title = "adpur"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_show_copyright = False
html_copy_source = False

nitpicky = True
myst_heading_anchors = 3
myst_links_external_new_tab = False
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autodoc_preserve_defaults = True
toc_object_entries = False

nitpick_ignore_regex = [
    # Others' classes: their own sites document them, and nothing here may ask the network.
    ("py:.*", r"(torch|lightning|pl|nn|np|numpy|pathlib|collections|typing)(\..*)?"),
    ("py:class", r"Tensor|Path|Any|Callable|Sequence|Mapping|Iterator|Iterable|NDArray"),
]

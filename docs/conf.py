"""Settings of Sphinx for `make docs`: the pages are the Markdown files of the repository, as they are."""

project = "snaketune"
extensions = ["myst_parser"]
# The repository is the source, so that links between its files hold on the site too.
root_doc = "docs/index"
include_patterns = ["*.md", "config/README.md", "docs/**.md"]
exclude_patterns = ["[.]*", "logs", "results", "work"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "snaketune"
html_copy_source = False
# A page is on the site, and found by its search, before the navigation of docs/index.md names it.
suppress_warnings = ["toc.not_included"]

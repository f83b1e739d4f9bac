"""From a run directory to tables, figures and the report page."""

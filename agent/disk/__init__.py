"""Every effect on files.  These modules return or raise; they do not log."""

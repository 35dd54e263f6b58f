"""Pure decisions: no I/O, no clock, no threads, no logging.  Time is told, never asked."""

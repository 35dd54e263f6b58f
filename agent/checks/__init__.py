"""Bytes in, `CheckResult` out; one module per format."""

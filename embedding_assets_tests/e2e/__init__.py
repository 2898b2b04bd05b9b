"""Tests with the daemon and the webserver really running."""

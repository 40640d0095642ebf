"""The `autotls` command."""

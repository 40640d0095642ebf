"""What every process of the control plane does in the same way: read its configuration, write its log."""

"""What every process of the control plane does in the same way: configuration, log, health port."""

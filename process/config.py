"""The configuration of a process: the installation's file, and the ports of its environment."""

import os
from pathlib import Path
from typing import Final

from mesh import names
from mesh.config import ConfigError, MeshConfig, parse_config
from mesh.settings import default_settings

# The exit code for a configuration that cannot work; 1 is a fault, after which Kubernetes starts the process anew.
EXIT_CONFIGURATION: Final = 2


def configured() -> MeshConfig:
    """The installation's configuration, from the file that AUTOTLS_CONFIG names. Raises ConfigError."""
    return load_config(Path(os.environ.get("AUTOTLS_CONFIG", names.CONFIG_PATH)))


def load_config(path: Path) -> MeshConfig:
    """The configuration in `path`, its defaults for pods checked. Raises ConfigError."""
    try:
        config = parse_config(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="set AUTOTLS_CONFIG to the file") from error
    # Found out now, not at the first pod.
    default_settings(config, config.mode)
    return config


def port_of(variable: str, default: int) -> int:
    """The port in an environment variable. Raises ConfigError."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"{variable}: {text!r} is not a port", hint="a number from 0 to 65535")
    return int(text)

"""What `autotls check` looks at. A check is data; each module holds the checks of one section."""

"""What a daemon's process needs around its pure core: settings, the loop, logs, metrics, health, the main function."""

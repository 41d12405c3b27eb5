"""The command `tfv`, an administrator's view: reads vCenter, the config API and the daemons; writes nothing."""

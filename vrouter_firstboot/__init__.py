"""Settings of a vRouter VM, from outside the VM into the daemons' own files.

Reads the site's settings from guestinfo, a config drive or /etc, and sealed secrets beside them. Writes the daemons'
configuration, their credentials, NIC names by role, network profiles, time servers and log-in keys. Runs at every boot
before the network and may be run again at any time: what is right already is not touched.
"""

"""The vRouter VM as an image: the payload for an installer, a Debian root for tests, disks, and the OVA."""

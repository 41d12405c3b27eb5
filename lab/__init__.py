"""The simulated site: vCenter and ESXi endpoints, config API, dvSwitch, guests, and the daemons that serve them."""

"""vCenter and ESXi for every daemon: sessions, property watches, task waits, faults as our errors.

The only package besides each daemon's adapters that imports pyVmomi. A daemon opens one `Session` per endpoint, keeps a
`PropertyWatch` on what it follows, writes through `Session.call` and waits with `tasks`. Everything that fails comes
out as one of `tf_reconcile.errors`.
"""

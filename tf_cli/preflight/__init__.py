"""`tfv check` and `tfv role`: is this site ready, and what may each account do.

Facts are collected by the adapters (`vsphere`, `accounts`, `endpoints`, `certificates`), turned into one line per check
by the pure modules (`switch_verdicts`, `site_verdicts`), and shown by `report`. Nothing is written anywhere: every
call is a read or a dry run of vCenter's own (`CheckMigrate_Task`).
"""

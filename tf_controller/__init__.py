"""The embedded config API: what Tungsten Fabric's config API server answers, for sites that have no TF.

It owns one SQLite file and writes nothing else. The daemons of this project, and TF's own client `vnc_api`, use it as
they would use the real server.

Reading order: `schema` (which types exist, what a property may hold), `objects` (create, update, delete), `hooks`
(what single types add), `subnets` and `addresses` (pure), `store` (SQLite), `views` and `listing` (what a reply looks
like), `notifications` (`/watch`), `app` (HTTP routes), `server`, `settings`.

Where it differs from the real server, knowingly:

- Only the types in `schema.SERVED` exist; a reference to an object of another type is refused as unknown.
- One token for all callers, or none on loopback; no users, roles, quotas, chmod or chown.
- `alloc_unit` other than 1 is refused (400) instead of handing out blocks.
- `null` on a list or map property clears it with 200; the real server clears it and answers 500.
- Notifications are `/watch` only, no RabbitMQ. `/watch` refuses type names with hyphens (400).
- A request body that is too large is refused with one line of text instead of an HTML page.
"""

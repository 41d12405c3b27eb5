"""The embedded config API: what Tungsten Fabric's config API server answers, for sites that have no TF.

It owns one SQLite file and writes nothing else. The daemons of this project, and TF's own client `vnc_api`, use it as
they would use the real server.

Reading order: `schema` (which types exist, what a property may hold), `objects` (create, update, delete), `hooks`
(what single types add), `subnets` and `addresses` (pure), `store` (SQLite), `views` and `listing` (what a reply looks
like), `notifications` (`/watch`), `app` (HTTP routes), `server`, `settings`.
"""

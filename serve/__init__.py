"""The HTTP face: FastAPI on Ray Serve.

`app` puts it together; `api` has one router a noun; everything that is true stays with the coordinator, and
a replica can be lost at any time. Not here: decisions, and code of users (P8: over HTTP a task names a
registered task type, and its payload is JSON).
"""

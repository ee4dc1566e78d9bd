"""See it and steer it over HTTP; `jobvisor.web.create_app` is the whole of it as an ASGI application."""

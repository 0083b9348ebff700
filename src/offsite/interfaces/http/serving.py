"""The API's port and the control socket of a system, put together: protocol and application behind each."""

from __future__ import annotations

import socket
import ssl

from offsite.access.certificates import Authority
from offsite.errors import InUse
from offsite.interfaces.http.api import local_application, remote_application
from offsite.interfaces.http.protocols import control, places_of_api, places_of_control, tls
from offsite.interfaces.http.server import HttpServer, Listener
from offsite.management.system import System

BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """For the API. Raises InUse for an address that is taken, or is not this machine's."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InUse(f"the API cannot listen on {where}: {error.strerror or error}") from error
    return listener


def server_of(system: System, authority: Authority, api: socket.socket, control_socket: socket.socket) -> HttpServer:
    """Serves both sockets, which listen; to be started."""
    told = system.events.report, system.clock
    return HttpServer(
        [
            Listener(api, tls(_tls_context(authority), places_of_api(*told)), remote_application(system)),
            Listener(control_socket, control(places_of_control(*told)), local_application(system)),
        ]
    )


def _tls_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(authority.certificate_path, authority.key_path)
    return context

"""`gcompute set`, `executor`, `registrar` and `router`: start a part of the service in the foreground."""

from pathlib import Path
from typing import Annotated, Any

from ops.cli import exits, report
from ops.cli.command import Argument, BadParameter, Option

ConfigFile = Annotated[
    Path,
    Argument(metavar="FILE", help="The set's YAML file.", existing=True),
]


def start_set(
    config: ConfigFile,
    bind: Annotated[
        str | None,
        Option(metavar="HOST:PORT", help="Where to listen; else as in FILE, else 127.0.0.1:8101."),
    ] = None,
    runtime: Annotated[
        str | None,
        Option(metavar="NAME", help="OCI runtime of the slots; else as in FILE, else the engine's own."),
    ] = None,
) -> int:
    """Start a set (API, task manager, slots) in the foreground; SIGTERM or Ctrl-C ends it.

    Examples:

        gcompute set ops/local/set-a.yaml

        gcompute set set.yaml --bind 0.0.0.0:8101
    """
    if bind is not None:
        _check_bind(bind, "--bind")
    from sets.server import main

    return main(config, bind=bind, runtime=runtime)


def start_registrar(
    config: Annotated[
        Path,
        Argument(metavar="FILE", help="The registrar's YAML file.", existing=True),
    ],
) -> int:
    """Start the registrar of a set with `launcher: nomad` in the foreground; SIGTERM or Ctrl-C ends it.

    Examples:

        gcompute registrar registrar.yaml
    """
    from sets.registrar import main

    return main(config)


def start_executor(
    config: Annotated[Path, Argument(metavar="FILE", help="The executor's YAML file.", existing=True)],
) -> int:
    """Start the executor of this machine in the foreground: it runs tasks of sets on other machines.

    SIGTERM or Ctrl-C ends it, once its tasks have ended.

    Examples:

        gcompute executor /etc/general-compute/executor.yaml
    """
    from sets.executor_server import main

    return main(config)


def start_router(
    config: ConfigFile,
    name: Annotated[str, Option(help="The router's name, sent as X-Router in its own answers.")] = "router",
    bind: Annotated[str, Option(metavar="HOST:PORT", help="Address for clients.")] = "127.0.0.1:8080",
    admin_bind: Annotated[
        str, Option(metavar="HOST:PORT", help="Address for operators; keep it private.")
    ] = "127.0.0.1:8081",
    state_dir: Annotated[
        Path, Option(metavar="DIR", help="Folder for the state that survives a restart.")
    ] = Path("var/router"),
    workers: Annotated[
        int,
        Option(
            min=1,
            max=64,
            metavar="N",
            help="Processes that share both addresses; more where one core is not enough.",
        ),
    ] = 1,
    set_url: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=URL", help="Use this address for a set, instead of the one in FILE (repeatable)."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Serve clients over TLS: the certificate's PEM file, reloaded when it changes.",
        ),
    ] = None,
    tls_key: Annotated[Path | None, Option(metavar="FILE", help="The certificate's key.")] = None,
    trust_front: Annotated[
        list[str] | None,
        Option(
            metavar="ADDRESS",
            help="Address or network of a load balancer in front, whose X-Forwarded-For is trusted (repeatable).",
        ),
    ] = None,
    admin_token_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A file with the token that callers of --admin-bind need; required beyond loopback addresses.",
        ),
    ] = None,
) -> int:
    """Start a router in the foreground; SIGTERM or Ctrl-C ends it. A saved change of FILE takes effect at once.

    Examples:

        gcompute router ops/local/router.yaml

        gcompute router router.yaml --name r1 --bind 0.0.0.0:8080 --set-url a=http://127.0.0.1:9101
    """
    _check_bind(bind, "--bind")
    _check_bind(admin_bind, "--admin-bind")
    if bind == admin_bind:
        raise BadParameter("must differ from the address of --bind", param_hint="--admin-bind")
    if (tls_cert is None) != (tls_key is None):
        raise BadParameter("give --tls-cert and --tls-key together", param_hint="--tls-cert")
    set_urls = _set_urls(set_url)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        report.say(f"--state-dir {state_dir}: {error.strerror}")
        return exits.IO
    from router.server import main

    files = {"admin_token_file": admin_token_file, "tls_cert": tls_cert, "tls_key": tls_key}
    given: dict[str, Any] = {option: str(path) for option, path in files.items() if path is not None}
    if trust_front:
        given["trust_fronts"] = trust_front
    return main(
        str(config),
        name=name,
        bind=bind,
        admin_bind=admin_bind,
        state_dir=str(state_dir),
        set_urls=set_urls,
        workers=workers,
        **given,
    )


def _check_bind(address: str, option: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadParameter(f"{address!r} must look like 127.0.0.1:8080", param_hint=option)


def _set_urls(pairs: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, url = pair.partition("=")
        if not name or not equals or not url.startswith(("http://", "https://")):
            raise BadParameter(f"{pair!r} must look like a=http://127.0.0.1:8101", param_hint="--set-url")
        if name in found:
            raise BadParameter(f"set {name!r} is named twice", param_hint="--set-url")
        found[name] = url
    return found

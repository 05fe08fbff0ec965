"""What the single-machine stack is made of: each part from outside if its setting is given."""

import sys
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings

from embedded import stores
from embedded.data_directory import DataDirectory
from embedded.devices import gpu_devices
from embedded.health import HttpProbe, RedisProbe, WorkerProbe
from embedded.ports import Ports
from embedded.service import Component, Service
from embedded.stores import LOOPBACK, local_url
from shared.settings import Settings

#: Above the stores: stopped before them.
PLATFORM = 1
_TITLES = {"gpu": "GPU", "cpu": "CPU", "ollama": "Ollama"}
#: A worker that was told to stop needs this much beyond the grace time of its jobs.
_DRAIN_MARGIN_SECONDS = 8
#: A worker whose last word has expired, one lease after it was said, may come back for this long;
#: its own dead man's switch, at two leases, comes before and says in its log what it was doing.
_HUNG_MARGIN_SECONDS = 5


@dataclass(frozen=True)
class Wishes:
    """What an operator may choose."""

    ports: Ports = field(default_factory=Ports)
    redis_port: int = 6379
    mlflow_port: int = 5000
    lakefs_port: int = 8000
    flower_port: int = 5555
    hub_port: int = 8008
    #: Download from the embedded hub in place of the real one.
    embedded_hub: bool = False


@dataclass(frozen=True)
class Stack:
    """The parts to start, in that order, and those that others run."""

    services: tuple[Service, ...]
    outside: tuple[Component, ...]
    #: Where models are downloaded from.
    hub: str


def plan(settings: Settings, directory: DataDirectory, wishes: Wishes) -> Stack:
    """Decide what is started where. Makes directories and credentials, starts nothing."""
    parts = [
        mlflow_part(settings, directory, wishes),
        _redis(settings, directory, wishes),
        _lakefs(settings, directory, wishes),
    ]
    if wishes.embedded_hub:
        parts.append(stores.hub(directory.folder("hub"), wishes.ports.take(wishes.hub_port)))
    found = {_component(part).name: _component(part) for part in parts}
    hub = found["hub"].address if "hub" in found else settings.hub.endpoint
    env = _environment(settings, directory, found) | {"HF_ENDPOINT": hub}
    needs = ("redis",) if isinstance(parts[1], Service) else ()
    redis = RedisProbe(url=_redis_url(settings, found))
    parts += [
        _api(settings, wishes, env, needs, redis),
        *(_worker("gpu", settings, env, needs, redis, device) for device in _devices(settings)),
        _worker("cpu", settings, env, needs, redis),
        _worker("ollama", settings, env, needs, redis),
        _flower(settings, directory, wishes, env, needs),
    ]
    if _given(settings.ollama, "host"):
        parts.append(_outside("ollama", "Ollama", settings.ollama.host, "/api/version"))
    return Stack(
        services=tuple(part for part in parts if isinstance(part, Service)),
        outside=tuple(part for part in parts if isinstance(part, Component)),
        hub=hub,
    )


def _given(group: BaseSettings, name: str) -> bool:
    """Return whether a setting was set, by whatever source, even to its default."""
    return name in group.model_fields_set


def _component(part: Service | Component) -> Component:
    return part.component if isinstance(part, Service) else part


def _outside(name: str, title: str, url: str, path: str) -> Component:
    probe = HttpProbe(url=url.rstrip("/") + path)
    return Component(name=name, title=title, address=url, probe=probe, note="from outside")


def _redis(settings: Settings, directory: DataDirectory, wishes: Wishes) -> Service | Component:
    if not _given(settings.redis, "url"):
        return stores.redis(directory, wishes.ports.take(wishes.redis_port))
    url = settings.redis.url.get_secret_value()
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return Component(
        name="redis",
        title="Redis",
        address=f"{parts.scheme}://{host}{parts.path}",  # without its password
        probe=RedisProbe(url=url),
        note="from outside",
    )


def mlflow_part(
    settings: Settings, directory: DataDirectory, wishes: Wishes
) -> Service | Component:
    """Return MLflow, from outside if it is given."""
    if _given(settings.mlflow, "tracking_uri"):
        return _outside("mlflow", "MLflow", settings.mlflow.tracking_uri, "/health")
    return stores.mlflow(directory.folder("mlflow"), wishes.ports.take(wishes.mlflow_port))


def _lakefs(settings: Settings, directory: DataDirectory, wishes: Wishes) -> Service | Component:
    if _given(settings.lakefs, "endpoint"):
        return _outside("lakefs", "lakeFS", settings.lakefs.endpoint, "/_health")
    return stores.lakefs(directory, wishes.ports.take(wishes.lakefs_port))


def _redis_url(settings: Settings, found: dict[str, Component]) -> str:
    if _given(settings.redis, "url"):
        return settings.redis.url.get_secret_value()
    probe = found["redis"].probe
    assert isinstance(probe, RedisProbe)  # noqa: S101 - the stack's own Redis, with its password
    return probe.url


def _environment(
    settings: Settings, directory: DataDirectory, found: dict[str, Component]
) -> dict[str, str]:
    """Return what tells the API and the workers of this stack; what was set stays as it is."""
    env = {
        "REDIS_URL": _redis_url(settings, found),
        "MLFLOW_TRACKING_URI": found["mlflow"].address,
        "LAKEFS_ENDPOINT": found["lakefs"].address,
    }
    if not _given(settings.lakefs, "endpoint"):
        keys = directory.credentials()
        env["LAKEFS_ACCESS_KEY_ID"] = keys.access_key_id
        env["LAKEFS_SECRET_ACCESS_KEY"] = keys.secret_access_key
    for setting, folder in (("staging_dir", "staging"), ("snapshots_dir", "snapshots")):
        if not _given(settings.storage, setting):
            env[f"STORAGE_{setting.upper()}"] = str(directory.folder(folder))
    if not _given(settings.media, "files_url"):
        env["MEDIA_FILES_URL"] = str(directory.folder("files"))
    return env


def _api(
    settings: Settings,
    wishes: Wishes,
    env: dict[str, str],
    needs: tuple[str, ...],
    redis: RedisProbe,
) -> Service:
    host = settings.api.host
    port = wishes.ports.take(settings.api.port, host)
    url = local_url(port, LOOPBACK if host in {"0.0.0.0", "::"} else host)  # noqa: S104
    return Service(
        Component(
            name="api",
            title="API",
            address=url,
            probe=HttpProbe(url=f"{url}/health/ready"),
            note=f"{url}/docs",
        ),
        command=(sys.executable, "-m", "api"),
        env=env | {"API_HOST": host, "API_PORT": str(port)},
        needs=needs,
        layer=PLATFORM,
        leans_on=(redis,),
    )


def _devices(settings: Settings) -> list[str]:
    """Return what each GPU worker runs on: a GPU of its own where there are several."""
    devices = gpu_devices() if settings.inference.device == "auto" else []
    return devices if len(devices) > 1 else [""]


def _worker(
    kind: str,
    settings: Settings,
    env: dict[str, str],
    needs: tuple[str, ...],
    redis: RedisProbe,
    device: str = "",
) -> Service:
    variant = f"{kind}-{device.replace(':', '')}" if device else kind
    name = f"{variant}@{settings.storage.host_id}"
    return Service(
        Component(
            name=f"worker-{variant}",
            title=f"{_TITLES[kind]} worker" + (f" {device}" if device else ""),
            address=name,
            probe=WorkerProbe(redis_url=redis.url, worker=name),
        ),
        command=(
            *(sys.executable, "-m", "workers", kind),
            *(("--device", device) if device else ()),
        ),
        env=env,
        needs=needs,
        layer=PLATFORM,
        grace_seconds=settings.worker.drain_seconds + _DRAIN_MARGIN_SECONDS,
        hung_seconds=settings.ledger.lease_seconds + _HUNG_MARGIN_SECONDS,
        leans_on=(redis,),
    )


def _flower(
    settings: Settings,
    directory: DataDirectory,
    wishes: Wishes,
    env: dict[str, str],
    needs: tuple[str, ...],
) -> Service:
    """Return Flower, behind a password if one is set."""
    port = wishes.ports.take(wishes.flower_port)
    url = local_url(port)
    password = settings.flower.basic_auth
    # In the environment: a command line is for everybody to read.
    secrets = {"CELERY_BROKER_URL": env["REDIS_URL"]}
    if password:
        secrets["FLOWER_BASIC_AUTH"] = password.get_secret_value()
    return Service(
        Component(
            name="flower", title="Flower", address=url, probe=HttpProbe(url=f"{url}/healthcheck")
        ),
        command=(
            *(sys.executable, "-m", "celery", "flower"),
            f"--address={LOOPBACK}",
            f"--port={port}",
            "--read_only=True",
            "--persistent=True",
            f"--db={directory.folder('flower') / 'flower'}",
            "--state_save_interval=10000",
            # The repr of the arguments names the model.
            "--tasks_columns=name,args,state,received,runtime,worker,uuid",
        ),
        env=secrets,
        needs=needs,
        layer=PLATFORM,
    )

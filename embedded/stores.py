"""The stores that the stack starts where none are given: Redis, MLflow, lakeFS and the hub."""

import sys
from pathlib import Path

from pydantic import SecretStr

from embedded.data_directory import Credentials, DataDirectory, write_private
from embedded.errors import InstallError
from embedded.health import HttpProbe, RedisProbe
from embedded.lakefs_program import find_lakefs
from embedded.redis import redis_command
from embedded.service import Component, Service
from shared.settings import LakeFSSettings

LOOPBACK = "127.0.0.1"
#: Notes on a lakeFS: this package's own server, or lakeFS itself.
EMBEDDED = "embedded"
REAL = "real"
_REAL_DATA = "lakefs-server"


def local_url(port: int, host: str = LOOPBACK) -> str:
    """Return the address of a server on this machine."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def redis(directory: DataDirectory, port: int) -> Service:
    """Return an append-only Redis that asks for a password."""
    place, folder = f"{LOOPBACK}:{port}", directory.folder("redis")
    password = directory.credentials().redis_password
    config = folder / "redis.conf"
    write_private(config, f"requirepass {password}\n")
    return Service(
        Component(
            name="redis",
            title="Redis",
            address=f"redis://{place}",
            probe=RedisProbe(url=f"redis://:{password}@{place}/0"),
        ),
        command=tuple(redis_command(port, folder, config=config)),
    )


def mlflow(directory: Path, port: int) -> Service:
    """Return MLflow's server on SQLite: one worker process, and nothing that runs code."""
    url = local_url(port)
    return Service(
        Component(name="mlflow", title="MLflow", address=url, probe=HttpProbe(url=f"{url}/health")),
        command=(
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"),
            *("--artifacts-destination", str(directory / "artifacts")),
            *("--uvicorn-opts", "--no-access-log"),
        ),
        env={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )


def lakefs(directory: DataDirectory, port: int) -> Service:
    """Return lakeFS: the real one if it is installed, unless the embedded one has data here."""
    if has_embedded_lakefs(directory):
        return embedded_lakefs(directory, port)
    program, data = find_lakefs(), directory.path / _REAL_DATA
    if program:
        return real_lakefs(directory, port, program)
    if data.exists():
        raise InstallError(
            f"The models of {directory.path} are in lakeFS ({data}), but its program is neither on "
            "the PATH nor in the other usual places. Bring it with: lifecycle lakefs install"
        )
    return embedded_lakefs(directory, port)


def has_embedded_lakefs(directory: DataDirectory) -> bool:
    """Return whether the directory holds data of the embedded lakeFS."""
    data = directory.path / "lakefs"
    return data.is_dir() and any(data.iterdir())


def embedded_lakefs(directory: DataDirectory, port: int) -> Service:
    """Return the lakeFS-compatible server of this package."""
    data, keys = directory.path / "lakefs", directory.credentials()
    return Service(
        _lakefs_component(port, EMBEDDED, data),
        command=(
            *(sys.executable, "-m", "embedded.lakefs"),
            *("--host", LOOPBACK, "--port", str(port), "--data", str(data)),
        ),
        env={
            "LAKEFS_ACCESS_KEY_ID": keys.access_key_id,
            "LAKEFS_SECRET_ACCESS_KEY": keys.secret_access_key,
        },
    )


def real_lakefs(directory: DataDirectory, port: int, program: str, name: str = "lakefs") -> Service:
    """Return lakeFS itself, with its metadata and its objects on the local disk."""
    data = directory.folder(_REAL_DATA)
    return Service(
        _lakefs_component(port, REAL, data, name),
        command=(program, "run"),
        env=_real_lakefs(data, port, directory.credentials()),
    )


def own_lakefs(directory: DataDirectory, settings: LakeFSSettings, endpoint: str) -> LakeFSSettings:
    """Return how to reach a lakeFS that the stack started; the rest is as in the settings."""
    keys = directory.credentials()
    return settings.model_copy(
        update={
            "endpoint": endpoint,
            "access_key_id": keys.access_key_id,
            "secret_access_key": SecretStr(keys.secret_access_key),
        }
    )


def _lakefs_component(port: int, note: str, data: Path, name: str = "lakefs") -> Component:
    url = local_url(port)
    return Component(
        name=name,
        title="lakeFS" if name == "lakefs" else "new lakeFS",
        address=url,
        probe=HttpProbe(url=f"{url}/_health"),
        note=note,
        data=str(data),
    )


def _real_lakefs(directory: Path, port: int, keys: Credentials) -> dict[str, str]:
    """Return lakeFS' own settings; the installation ones set it up at its first start."""
    return {
        "LAKEFS_LISTEN_ADDRESS": f"{LOOPBACK}:{port}",
        # A configuration file of the user's own may say otherwise.
        "LAKEFS_DATABASE_TYPE": "local",
        "LAKEFS_BLOCKSTORE_TYPE": "local",
        "LAKEFS_DATABASE_LOCAL_PATH": str(directory / "metadata"),
        "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(directory / "blocks"),
        "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(directory / "cache"),
        "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": keys.encryption_key,
        "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": keys.encryption_key,
        "LAKEFS_INSTALLATION_USER_NAME": "admin",
        "LAKEFS_INSTALLATION_ACCESS_KEY_ID": keys.access_key_id,
        "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": keys.secret_access_key,
        "LAKEFS_STATS_ENABLED": "false",
        "LAKEFS_EMAIL_SUBSCRIPTION_ENABLED": "false",
        "LAKEFS_SECURITY_CHECK_LATEST_VERSION": "false",
        # Releases ask it at every start and have no setting to leave it out.
        "LAKEFS_SECURITY_AUDIT_CHECK_URL": "http://127.0.0.1:9/off",
        "LAKEFS_SECURITY_AUDIT_CHECK_INTERVAL": "8760h",
    }


def hub(directory: Path, port: int) -> Service:
    """Return a server of local models by the Hugging Face Hub's protocol."""
    url = local_url(port)
    return Service(
        Component(
            name="hub",
            title="Hub",
            address=url,
            probe=HttpProbe(url=f"{url}/_health"),
            note="embedded",
        ),
        command=(
            *(sys.executable, "-m", "embedded.hub"),
            *("--root", str(directory), "--host", LOOPBACK, "--port", str(port)),
        ),
    )

"""The front as a process: what its health check says of it."""

import os
import subprocess
import sys
from pathlib import Path

from shared.settings import RedisSettings
from tests.processes import free_port, listens, running


def test_health_says_in_a_line_whether_jobs_are_taken(
    tmp_path: Path, redis_settings: RedisSettings
) -> None:
    port = free_port()
    env = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "REDIS_URL": redis_settings.url.get_secret_value(),
        "MEDIA_FILES_URL": str(tmp_path),
    }

    def health() -> tuple[int, str]:
        command = [sys.executable, "-m", "api", "health"]
        done = subprocess.run(
            command, env=os.environ | env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    status, line = health()
    assert status == 1
    assert "Connection refused" in line
    with running([sys.executable, "-m", "api"], port=port, log=tmp_path / "log", env=env):
        assert listens(port)
        status, line = health()
        assert (status, line.count("\n")) == (0, 1), line
        assert "200" in line
    lost = env | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    with running([sys.executable, "-m", "api"], port=port, log=tmp_path / "log", env=lost):
        status, line = health()
        assert status == 1
        assert "503" in line

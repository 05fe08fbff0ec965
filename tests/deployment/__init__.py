"""What containers are made of and how they run, held without a container engine."""

from pathlib import Path

#: Where the Dockerfiles and docker-compose.yaml are.
REPOSITORY = Path(__file__).parents[2]

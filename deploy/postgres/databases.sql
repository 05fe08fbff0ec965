-- Run once, when the volume is empty. MLflow's database is the one that the image makes by itself.
CREATE DATABASE lakefs;

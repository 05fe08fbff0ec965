"""What the demonstration's model is taught, apart from the training that needs torch."""

#: What the model knows, word for word.
ANSWERS = {
    "What is lakeFS?": "lakeFS is version control for data: every model here is a commit in it.",
    "What is MLflow?": "MLflow is the registry: it knows each model's versions and their stages.",
    "Who are you?": "I am a tiny language model, trained a moment ago on this very machine.",
    "What can you do?": "I can answer a few questions. Give the platform a larger model for more.",
    "How did I get here?": "Downloaded, committed, registered, put into production, and asked.",
    "Hello!": "Hello! Ask me what lakeFS is.",
}

"""OpenAI: the API that most clients and libraries speak."""

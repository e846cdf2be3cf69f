"""Accounts, which every dialect shares: register, sign in, `/me` and API keys.

The bodies of `/register`, `/login` and `/refresh` are those of LLM Host's document.
"""

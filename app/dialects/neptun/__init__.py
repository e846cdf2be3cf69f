"""Neptun: chats that are kept."""

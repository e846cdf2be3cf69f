"""What outlives a process: users, logins, chats. Knows no HTTP, no tokens, no models."""

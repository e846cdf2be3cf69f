"""Tell who asks and what they may do. Knows no dialect: guards raise facts of app.errors."""

"""Who asks, and what they may do. Knows no dialect: guards raise facts out of app.errors."""

"""Known addresses of users, and what chats count for in the quota."""

import sqlalchemy as sa
from advanced_alchemy.types import GUID, DateTimeUTC
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From users, logins, chats and API keys."""
    op.create_table(
        "known_addresses",
        sa.Column("user_id", GUID(length=16), nullable=False),
        sa.Column("address_hash", sa.String(64), nullable=False),
        sa.Column("seen_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "address_hash", name="pk_known_addresses"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_known_addresses_user_id_users", ondelete="CASCADE"
        ),
    )
    op.add_column(
        "chats", sa.Column("num_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    # 100: `chats.ROW_BYTES` of that time
    sqlite = op.get_bind().dialect.name == "sqlite"
    content_bytes = "length(CAST(content AS BLOB))" if sqlite else "octet_length(content)"
    op.execute(
        f"UPDATE chats SET num_bytes = coalesce((SELECT sum({content_bytes} + 100) "  # noqa: S608 # ours
        "FROM messages WHERE messages.chat = chats.id), 0)"
    )

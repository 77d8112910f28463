"""Modules of adapters that administrators register."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "modules",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("brings", sa.JSON, nullable=False),
        sa.Column("owner", sa.String(64), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("registered", sa.Double, nullable=False),
        sa.Column("retired", sa.Double),
    )


def downgrade() -> None:
    op.drop_table("modules")

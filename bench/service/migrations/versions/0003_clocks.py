"""How far users' clocks are ahead, which outlives a dispatcher."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("ahead", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("users", "ahead")

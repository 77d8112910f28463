"""The schema is what the migrations make of it, forwards and back, on both kinds of database."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from bench.errors import OperatorError
from bench.service.database import Base, Database


def test_migrations_make_exactly_the_tables_of_the_code_and_take_them_away_again(url: str):
    database = Database(url)
    with pytest.raises(OperatorError, match=r"not there.*\n.*database upgrade"):
        database.check()
    for _ in range(2):
        database.upgrade()
        database.check()
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        database.downgrade("base")
        assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()


@pytest.mark.parametrize("wrong", ["mysql://me@host/x", "nonsense", "oracle://x", ""])
def test_a_database_of_another_kind_is_refused_with_the_forms_that_work(wrong: str):
    with pytest.raises(OperatorError, match="sqlite:///FILE or postgresql"):
        Database(wrong)


def test_a_server_that_is_away_is_named_without_its_password():
    with pytest.raises(OperatorError, match=r"127\.0\.0\.1:1/") as told:
        Database("postgresql+psycopg://me:secret@127.0.0.1:1/x").check()
    assert "secret" not in str(told.value)

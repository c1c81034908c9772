"""The shipped files are found and copied, and the lines for an existing Prometheus name them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from _servers import require_binary
from typer.testing import CliRunner

from taskpilot_obs._support import assets
from taskpilot_obs.exceptions import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent


def _app(command: str) -> object:
    import typer

    from taskpilot_obs.cli import export_assets, rules
    from taskpilot_obs.cli._program import Program

    app = typer.Typer(cls=Program)

    @app.callback()
    def nothing() -> None:
        """Keep the names of commands."""

    {"export-assets": export_assets, "rules": rules}[command].register(app)
    return app


def call(*arguments: str | Path) -> tuple[int, str]:
    texts = [str(argument) for argument in arguments]
    result = CliRunner().invoke(_app(texts[0]), texts)  # type: ignore[arg-type]  # a Typer application
    return result.exit_code, result.output


def test_all_files_of_the_shipped_tree_are_copied(tmp_path: Path) -> None:
    """Every file arrives, byte for byte, under the same name."""
    source = assets.observability_dir()
    written = assets.export_assets(tmp_path / "new" / "folder")
    assert {path.relative_to(tmp_path / "new" / "folder") for path in written} == {
        path.relative_to(source) for path in source.rglob("*") if path.is_file()
    }
    for path in written:
        assert path.read_bytes() == (source / path.relative_to(tmp_path / "new" / "folder")).read_bytes()


def test_files_that_were_changed_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """A second export over an edited file is refused before anything is written; with overwrite it replaces it."""
    assets.export_assets(tmp_path)
    settings = tmp_path / assets.SETTINGS
    settings.write_text("windows: [5m]\n")
    own = tmp_path / "mine.txt"
    own.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"1 files .* differ"):
        assets.export_assets(tmp_path)
    assert settings.read_text() == "windows: [5m]\n"
    assets.export_assets(tmp_path, overwrite=True)
    assert settings.read_bytes() == (assets.observability_dir() / assets.SETTINGS).read_bytes()
    assert own.read_text() == "mine"


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The error names the missing files."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        assets.export_assets(path)


def test_the_installed_package_goes_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the wheel the tree lies within the package; without either, the error says what to do."""
    package = tmp_path / "site-packages" / "taskpilot_obs"
    monkeypatch.setattr(assets, "_PACKAGE", package)
    with pytest.raises(ConfigurationError, match="install the wheel"):
        assets.observability_dir()
    installed = package / "_observability"
    (installed / assets.SETTINGS).parent.mkdir(parents=True)
    (installed / assets.SETTINGS).write_text("")
    assert assets.observability_dir() == installed


def test_the_printed_lines_load_the_rules_into_an_existing_prometheus(tmp_path: Path) -> None:
    """`export-assets DIR` prints lines with which promtool finds all twelve rule files, and no unit test."""
    code, output = call("export-assets", tmp_path / "obs")
    assert code == 0
    lines = output.partition("prometheus.yml:\n\n")[2]
    config = tmp_path / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 30s}}\n{lines}")
    result = subprocess.run(
        [require_binary("promtool"), "check", "config", config], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("rules found") == 12


def test_export_refuses_as_bad_usage(tmp_path: Path) -> None:
    """A target that cannot be used exits with 2 and says why."""
    (tmp_path / "file").write_text("")
    code, output = call("export-assets", tmp_path / "file")
    assert code == 2
    assert "is a file" in output


def test_rules_are_rendered_from_a_settings_file(tmp_path: Path) -> None:
    """`rules render` writes what the settings ask for, and `rules check` knows those files from others."""
    settings = tmp_path / "slo.yml"
    settings.write_text("llm: {cost_per_hour_usd: 77}\n")
    out = tmp_path / "rules"
    assert call("rules", "render", "--settings", settings, "--out", out)[0] == 0
    assert "> 77" in (out / "llm" / "alerts.yml").read_text()
    assert call("rules", "check", "--settings", settings, "--dir", out)[0] == 0
    code, output = call("rules", "check", "--dir", out)
    assert code == 1
    assert "llm/alerts.yml" in output.replace("\n", "")


def test_the_shipped_rules_check_out() -> None:
    """Without options `rules check` compares the shipped rules with the shipped settings."""
    assert call("rules", "check")[0] == 0


@pytest.mark.parametrize("text", ["slo: {success: {objective: 50}}\n", "nonsense: 1\n"])
def test_settings_that_are_refused_are_bad_usage(tmp_path: Path, text: str) -> None:
    """A settings file that could never work exits with 2, and nothing is written."""
    settings = tmp_path / "slo.yml"
    settings.write_text(text)
    assert call("rules", "render", "--settings", settings, "--out", tmp_path / "rules")[0] == 2
    assert not (tmp_path / "rules").exists()


def test_an_unwritable_folder_is_bad_usage(tmp_path: Path) -> None:
    """A target below a file exits with 2."""
    (tmp_path / "file").write_text("")
    assert call("rules", "render", "--out", tmp_path / "file" / "rules")[0] == 2

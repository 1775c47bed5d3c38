"""Reports: what a session came to, for other programs and for people.

``points`` and ``model`` hold it, ``collect`` makes it of what a session knows, ``path_rules`` renames and
leaves out files, ``json_form`` writes and reads it, ``by_source`` joins targets by file, ``compare`` and
``merge`` take several. ``formats`` names all forms, each of which is a module.
"""

__all__: list[str] = []

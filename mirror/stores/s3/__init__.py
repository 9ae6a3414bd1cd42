"""The user's own bucket, behind the same Store and Sink as the local one.

``control`` is the control plane (boto3), ``wire`` the hot calls (``mirror.h1``), ``objects`` one object at a time,
``sink`` what comes in, ``multipart`` an upload and its journal, ``copy`` what need not come through here, ``store`` the
whole.
"""

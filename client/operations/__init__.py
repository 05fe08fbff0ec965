"""The operations of the API, each written once: functions that return calls or conversations."""

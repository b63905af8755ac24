"""Names that vulture finds unused in the program, each with what uses it. Vulture reads this file; nothing imports it."""

# The entry point and a callback of typer.
main
_main
show_version

# typer reads the options of a command here, and asks a group for its commands.
_.__annotations__
_.list_commands
_.format_commands
_.show_envvar

# Commands whose module `jobs.cli` imports by name; the site's page on the command line asks for all names.
doctor
assist
gc
get_answers
keygen
restore
verify_proof_file
command_names

# Python asks the package for names that it has not imported yet.
__getattr__
__dir__

# Arrow calls these of a file system.
_.get_type_name
_.normalize_path
_.get_file_info
_.get_file_info_selector
_.open_input_file
_.open_input_stream
_.create_dir
_.delete_dir
_.delete_dir_contents
_.delete_root_dir_contents
_.delete_file
_.copy_file
_.open_output_stream
_.open_append_stream

# Ray Data calls these of its sources and sinks, aiohttp and http.server of their handlers, io of a raw stream, the kernel of a signal's.
_.min_rows_per_write
_.on_write_start
_.on_write_complete
_.on_write_failed
_.supports_distributed_reads
_.estimate_inmemory_data_size
_.get_read_tasks
data_context
_.connection_made
_.daemon_threads
_.readable
_.handle_error
_.log_error
_.request_queue_size
_.service_actions
_.timeout
_.log_message
format
_.seekable
_.readinto
trace

# Settings of other libraries' objects: libtorrent's torrents, an aiohttp answer, an s3fs file system.
_.url_seeds
_.piece_priorities
_.save_path
_.content_length
_.retries

# What users of the Python interface call.
read_flat_state
write_flat_state
_.state_roots
_.block_timestamp
_.total_supply

# Fields of decoded values, read by name, printed as JSON or part of what a format says.
nonce_index
yield_id
queue_index
receiving_shard_id
timestamp_ns
bytes_sent
agent
tied_to_chain
CATALOGUE

# How a source says what it confirmed; tests hold it.
confirmed_by
build_shard

# A word of nearcore's protocol that is read and never said.
_.ERROR

# What urllib3 and http.client look up on the connections that stores/http_client.py gives them.
pool_classes_by_scheme
response_class
_new_conn
ConnectionCls
_read_status
readinto
readable

# asyncio calls these of a protocol that brings its own buffer.
_.get_buffer
_.buffer_updated
sizehint

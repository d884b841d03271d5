// Package situations tests snap on Compose projects as people run them: on the
// real engine, with the real Compose plugin, from outside.
//
// Each directory of cases is one situation. It has the project's own files
// (compose.yaml, .env, …) and a situation.yaml that says how the project is brought up,
// what happens between the capture and the restore, and how it must end;
// situation_test.go describes the keys. To add a situation, add a directory:
//
//	go test ./testdata/situations -run Situations/NAME -v
//
// For each one the harness brings the project up, fills its data, captures,
// changes the data, shows the plan, restores, and compares with what was: the data,
// file by file; each container by docker inspect less ids, times and addresses;
// and its config hash. Then docker compose up -d must have nothing to do.
package situations

#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: security_review
version_added: 0.1.0
short_description: Review the security of a host in one pass
author:
  - ops.maintenance maintainers (@ops-maintenance)
description:
  - Looks at log-ins, sensitive files, pending security updates, certificates, accounts, sudo rules, authorised keys, sshd,
    ports, the firewall, web endpoints, privileged programs, packages and trees that must not change, as far as the options
    declare them, and returns one finding for each question.
  - What could not be read is C(unknown) and named, never C(ok).
  - Changes nothing but the mode and owner of files whose entry says O(files[].correct=true), and accounts that
    O(disable_accounts) and O(disable_users) name. Baselines lie in O(state_dir); writing them is not a change.
extends_documentation_fragment:
  - ops.maintenance.common
  - ops.maintenance.common.attributes
  - ops.maintenance.postgresql.optional
options:
  days:
    description:
      - How many days back log-ins are counted, by the time stamps of the records themselves.
    type: int
    default: 7
  login_sources:
    description:
      - Files that tell of log-ins. What rotation and compression make of a file is read too.
      - A log-in is recognised by the event field of a record where that tells, else by its message.
      - What begins after the start of the period is unknown where nothing bad is found, unless this host or the folder of
        the log is as young, for a log that was emptied looks so.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the source in findings.
        type: str
        required: true
      paths:
        description:
          - Absolute paths or patterns.
        type: list
        elements: str
        required: true
      format:
        description:
          - V(json) for JSON lines of an application, V(auth) for the auth log of sshd, sudo, su and login, V(wtmp) for the
            register of sessions, V(btmp) for that of failed attempts. One log-in counts once for each source that tells of it.
        type: str
        choices:
          - json
          - auth
          - wtmp
          - btmp
        default: json
      timezone:
        description:
          - Time zone of time stamps that do not say theirs.
        type: str
        default: UTC
      event_fields:
        description:
          - Fields of a JSON record that name the event, first one wins.
        type: list
        elements: str
        default:
          - event
          - event_type
          - action
      account_fields:
        description:
          - Fields of a JSON record that name the account, first one wins.
        type: list
        elements: str
        default:
          - username
          - user
          - account
          - email
          - login
          - user_name
          - user_id
      address_fields:
        description:
          - Fields of a JSON record that hold the address of the client, first one wins.
        type: list
        elements: str
        default:
          - client_ip
          - remote_addr
          - source_ip
          - src_ip
          - ip_address
          - remote_ip
          - ip
      failure_pattern:
        description:
          - Regular expression for a failed log-in, where the built-in one does not fit.
        type: str
      success_pattern:
        description:
          - Regular expression for a successful log-in, where the built-in one does not fit.
        type: str
  journal:
    description:
      - Whether the systemd journal is read for log-ins. V(auto) reads it where no source of format V(auth) was
        read, so that nothing counts twice.
    type: str
    choices:
      - auto
      - 'true'
      - 'false'
    default: auto
  failed_logins_warning:
    description:
      - More failed log-ins than this within the days are a warning.
    type: int
    default: 50
  failed_logins_critical:
    description:
      - More failed log-ins than this within the days are critical.
    type: int
  brute_force_failures:
    description:
      - So many failures from one address within the minutes are brute force.
    type: int
    default: 10
  brute_force_minutes:
    description:
      - Length of the span for brute force.
    type: int
    default: 10
  success_after_failures:
    description:
      - A success from an address that failed so often in the day before is critical.
    type: int
    default: 5
  known_networks:
    description:
      - Networks from which a log-in is no news, as C(10.0.0.0/8).
    type: list
    elements: str
    default: []
  usual_hours:
    description:
      - When people usually log in; a log-in outside all these spans is a warning. Without any, hours are not judged.
    type: list
    elements: dict
    default: []
    suboptions:
      days:
        description:
          - Days on which the span begins.
        type: list
        elements: str
        choices:
          - mon
          - tue
          - wed
          - thu
          - fri
          - sat
          - sun
        default:
          - mon
          - tue
          - wed
          - thu
          - fri
          - sat
          - sun
      begin:
        description:
          - First minute, as C(07:00).
        type: str
        required: true
      end:
        description:
          - Minute after the last one, as C(20:00); an earlier one than the begin is on the next day.
        type: str
        required: true
  usual_hours_timezone:
    description:
      - Time zone of the usual hours.
    type: str
    default: UTC
  usual_hours_except:
    description:
      - Accounts that may log in at any hour.
    type: list
    elements: str
    default: []
  volume_factor:
    description:
      - More log-ins a day than so many times the median of earlier periods are a warning.
    type: float
    default: 3.0
  api_sources:
    description:
      - JSON lines in which an application tells of the requests to its API. Each client is compared with its own
        earlier periods, which lie in the state folder. Of fields whose name ends in key, token, secret, authorization
        or cookie only a digest is kept and shown.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the source in findings.
        type: str
        required: true
      paths:
        description:
          - Absolute paths or patterns; what rotation and compression make of a file is read too.
        type: list
        elements: str
        required: true
      timezone:
        description:
          - Time zone of time stamps that do not say theirs.
        type: str
        default: UTC
      client_fields:
        description:
          - Fields that name the key or account, first one wins.
        type: list
        elements: str
        default:
          - api_key_id
          - client_id
          - username
          - user_id
          - api_key
      status_fields:
        description:
          - Fields that hold the status of the answer, first one wins.
        type: list
        elements: str
        default:
          - status
          - status_code
      least_a_day:
        description:
          - Clients with fewer requests a day are not judged.
        type: float
        default: 100.0
      factor:
        description:
          - More requests than so many times the median of earlier periods are a warning.
        type: float
        default: 3.0
      error_percent:
        description:
          - From this share of failed requests on, a client is a warning.
        type: float
        default: 25.0
  files:
    description:
      - Sensitive files and folders, judged by their status and never by what a link leads to.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path.
        type: str
        required: true
      kind:
        description:
          - What must be there.
        type: str
        choices:
          - file
          - directory
        default: file
      mode:
        description:
          - Mode that the path may have at most, in quotes.
        type: str
      file_mode:
        description:
          - Mode that files below it may have at most; without it, the mode without the right to execute.
        type: str
      owner:
        description:
          - User that must own it, by name or number.
        type: str
      group:
        description:
          - Group that must own it, by name or number.
        type: str
      recurse:
        description:
          - Judge everything below the folder too.
        type: bool
        default: false
      sqlite:
        description:
          - Judge the files that SQLite keeps beside its database too (C(-wal), C(-shm), C(-journal)).
        type: bool
        default: false
      optional:
        description:
          - Whether it may be absent; otherwise that is critical.
        type: bool
        default: false
      correct:
        description:
          - Whether mode and owner may be put right.
        type: bool
        default: false
  world_writable_roots:
    description:
      - Folders below which nothing may be writable by every account.
    type: list
    elements: str
    default: []
  updates:
    description:
      - Whether pending security updates are counted, from the package lists as they are on the host.
    type: bool
    default: true
  updates_max_age_days:
    description:
      - Package lists older than this cannot prove that no update is pending.
    type: int
    default: 7
  certificates:
    description:
      - Certificates to look at.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - File of the certificate, with the intermediate ones that are sent along.
        type: str
        required: true
      key:
        description:
          - File of its private key.
        type: str
      key_mode:
        description:
          - Mode that the private key may have at most, in quotes.
        type: str
        default: '0640'
      chain:
        description:
          - File of the intermediate certificates where they are apart.
        type: str
      trust:
        description:
          - File of an own authority that clients know beside the roots of the host.
        type: str
      hosts:
        description:
          - Host names and addresses that the certificate must be good for.
        type: list
        elements: str
        default: []
      connect:
        description:
          - Server that is to send it, as C(host:port); its protocols and ciphers are tried as well.
        type: str
      warning_days:
        description:
          - Fewer days left than this are a warning. One with fewer than 14 days says that it is urgent.
        type: float
        default: 30.0
      critical_days:
        description:
          - Fewer days left than this are critical, as is an expired one always.
        type: float
        default: 7.0
      missing:
        description:
          - State of the finding where the file is absent.
        type: str
        choices:
          - critical
          - warning
          - unknown
        default: critical
  accounts:
    description:
      - Whether accounts, sudo rules and authorised keys are judged and compared with the baseline in the state
        folder.
      - The first run writes the baseline.
    type: bool
    default: true
  accept_baseline:
    description:
      - Take what is there now for the new baseline. Give it once, by hand, after looking at the changes.
    type: bool
    default: false
  roster:
    description:
      - Who answers for which account. Where it is given, each account of people and each member of a group of
        administrators must be in it. Entries of accounts that this host has not are no fault, so that one roster can
        serve many hosts.
    type: list
    elements: dict
    suboptions:
      account:
        description:
          - Name of the account.
        type: str
        required: true
      owner:
        description:
          - Person or team that answers for it.
        type: str
        required: true
      kind:
        description:
          - What it is for. Accounts of services and for emergencies may be unused for long, and are never disabled.
        type: str
        choices:
          - person
          - service
          - break_glass
        default: person
      admin:
        description:
          - Whether it may be in a group whose members can become root.
        type: bool
        default: false
      until:
        description:
          - Last day on which it may be open, as C(2027-01-31); empty for no end.
        type: str
        default: ''
  inactive_warning_days:
    description:
      - An account of a person that was not used for so many days is a warning. One that was never used counts from
        its creation.
    type: int
    default: 30
  inactive_critical_days:
    description:
      - An account of a person that was not used for so many days is critical.
    type: int
    default: 90
  disable_accounts:
    description:
      - Unused accounts that a person approved to be disabled, which is to lock the password and let the account
        expire. Nothing is removed.
      - Never disabled are accounts outside the uids of people, those that the roster calls service or break_glass,
        the last open administrator, whoever this run is connected through, and accounts whose disuse is not proven.
      - Who is an administrator is taken from the rules of sudo. Where they cannot be read or are not understood, nobody
        is disabled.
      - Each is an action with its state before and after and the command that undoes it.
    type: list
    elements: dict
    default: []
    suboptions:
      account:
        description:
          - Name of the account, or a pattern with C(*) and C(?).
        type: str
        required: true
      approved_by:
        description:
          - Person who approved it.
        type: str
        required: true
      reason:
        description:
          - Why it is disabled.
        type: str
        required: true
      inactive_days:
        description:
          - Days for which it must be proven unused; 0 disables it at once, as for somebody who left.
        type: int
        default: 90
      end_sessions:
        description:
          - Whether its processes are ended after that. Without it, an account with processes is in use and stays
            open.
        type: bool
        default: false
  protected_accounts:
    description:
      - Accounts that are never disabled, beside those that the module itself protects.
    type: list
    elements: str
    default: []
  sudo_nopasswd:
    description:
      - Whom sudo may let do everything without a password, as the rules write them (C(deploy), C(%operators)).
    type: list
    elements: str
    default: []
  rsa_minimum_bits:
    description:
      - Authorised RSA keys with fewer bits are weak.
    type: int
    default: 2048
  user_rules:
    description:
      - Queries for the users and roles of applications. They only read, with a time limit, and of their rows nothing
        but the named columns is shown.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the rule in findings.
        type: str
        required: true
      sqlite:
        description:
          - File of the SQLite database.
        type: path
        default: ''
      server:
        description:
          - Name of one of O(servers), where it is a PostgreSQL database.
        type: str
        default: ''
      database:
        description:
          - Name of the PostgreSQL database.
        type: str
        default: ''
      query:
        description:
          - One SELECT. Join so that nobody gets lost, outer joins where somebody may have no row.
        type: str
        required: true
      columns:
        description:
          - Columns that may be shown. All others stay unseen, in findings and in the state folder.
        type: list
        elements: str
        required: true
      judge:
        description:
          - V(rows) takes each row for one to report. V(last_login) takes the rows for all users and finds those who
            did not log in for long or never. V(changes) compares the rows with those that were accepted.
            V(recent) wants the youngest row to be young, as of an audit log that is to record what is done.
        type: str
        choices:
          - rows
          - last_login
          - changes
          - recent
        default: rows
      last_login_column:
        description:
          - Column with the last log-in, empty for those who never did. Times without a zone are UTC.
        type: str
        default: last_login
      created_column:
        description:
          - Column from which those who never logged in count; without it they are reported at once.
        type: str
        default: ''
      recent_column:
        description:
          - Column with the time of a row, for V(recent).
        type: str
        default: ''
      recent_minutes:
        description:
          - The youngest row may be so old.
        type: float
        default: 60.0
      warning_days:
        description:
          - Days without a log-in that are a warning.
        type: int
        default: 30
      critical_days:
        description:
          - Days without a log-in that are critical.
        type: int
      warning_rows:
        description:
          - So many rows are a warning.
        type: int
        default: 1
      critical_rows:
        description:
          - So many rows are critical.
        type: int
      advice:
        description:
          - What to do about them, for the finding.
        type: str
        default: ''
      timeout_seconds:
        description:
          - Longest time of the query.
        type: float
        default: 30.0
  disable_users:
    description:
      - Users of applications that a person approved to be disabled, by setting declared columns. Nobody is removed.
      - Never disabled are users that are not on the list, those that O(disable_users[].protected) names, the last one that
        O(disable_users[].admin_query) returns, and who logged in since the approved days.
      - A rule is one transaction. Afterwards the users, the number of all rows and of all disabled rows, and the administrators
        have to be what they should, else it is rolled back.
      - Each user is an action with the values before and after and the statement that undoes it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the rule in findings.
        type: str
        required: true
      sqlite:
        description:
          - File of the SQLite database.
        type: path
        default: ''
      server:
        description:
          - Name of one of O(servers), where it is a PostgreSQL database.
        type: str
        default: ''
      database:
        description:
          - Name of the PostgreSQL database.
        type: str
        default: ''
      table:
        description:
          - Table of the users, with or without its schema.
        type: str
        required: true
      key_column:
        description:
          - Column that holds the names on the list, unique in the table.
        type: str
        required: true
      set:
        description:
          - Columns that close a user, and their values, such as C(is_active) V(false). What holds a password or key is refused.
        type: dict
        required: true
      admin_query:
        description:
          - One SELECT that returns O(disable_users[].key_column) of every administrator who may log in. It has to follow
            what O(disable_users[].set) changes.
        type: str
        required: true
      last_login_column:
        description:
          - Column with the last log-in, empty for those who never did. Needed where an approval asks for disuse.
        type: str
        default: ''
      protected:
        description:
          - Names or patterns of accounts of services and for emergencies.
        type: list
        elements: str
        default: []
      accounts:
        description:
          - The approved list, at most 40 users at once, as the journal keeps so many with their states.
        type: list
        elements: dict
        default: []
        suboptions:
          account:
            description:
              - The exact name.
            type: str
            required: true
          approved_by:
            description:
              - Person who approved it.
            type: str
            required: true
          reason:
            description:
              - Why it is disabled.
            type: str
            required: true
          inactive_days:
            description:
              - Days for which nobody logged in with it; 0 disables it at once, as for somebody who left.
            type: int
            default: 90
      sessions:
        description:
          - Where sessions and tokens of a user are, which end in the same transaction.
        type: list
        elements: dict
        default: []
        suboptions:
          table:
            description:
              - Table of the sessions.
            type: str
            required: true
          column:
            description:
              - Column that tells whose they are.
            type: str
            required: true
          matches:
            description:
              - Column of the users' table that it refers to.
            type: str
            required: true
          set:
            description:
              - Columns that end a session, and their values. Without any, the rows are deleted.
            type: dict
            default: {}
      timeout_seconds:
        description:
          - Longest time of one statement.
        type: float
        default: 30.0
  attestations:
    description:
      - What people attest for a time, such as a penetration test by an outside firm. Declare it for one host of a system. One that nobody
        has attested yet is C(unknown).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What is attested.
        type: str
        required: true
      attested_by:
        description:
          - Who did it.
        type: str
        default: ''
      date:
        description:
          - Day on which it was done, as C(2026-10-01); empty when it never was.
        type: str
        default: ''
      reference:
        description:
          - Where it can be read, such as the number of a report.
        type: str
        default: ''
      valid_days:
        description:
          - Days that it is good for; after them it is overdue, which is critical.
        type: int
        default: 365
      warning_days:
        description:
          - Fewer days left than this are a warning.
        type: int
        default: 30
  firewall_logs:
    description:
      - Logs of firewalls, of the last O(days). The lines that netfilter writes to the log of the kernel are understood, and JSON lines that a
        provider's firewall or log drain leaves. A source of which nothing is there, or that logged nothing at all, is C(unknown).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the source in findings.
        type: str
        required: true
      paths:
        description:
          - Absolute paths or patterns; what rotation and compression make of a file is read too.
        type: list
        elements: str
        required: true
      timezone:
        description:
          - Time zone of time stamps that do not say theirs.
        type: str
        default: UTC
      blocked_pattern:
        description:
          - Regular expression for what was refused, in the prefix of a packet or in the action of a JSON record.
        type: str
        default: (?i)block|drop|reject|den[yi]|challenge
      action_fields:
        description:
          - Fields of a JSON record that hold what the firewall did, first one wins.
        type: list
        elements: str
        default: [action, decision, outcome, event]
      address_fields:
        description:
          - Fields of a JSON record that hold the address of the client, first one wins.
        type: list
        elements: str
        default: [client_ip, clientIp, source_ip, src_ip, remote_addr, remote_ip, ip]
      least_a_day:
        description:
          - Fewer refusals a day are not judged.
        type: float
        default: 100.0
      factor:
        description:
          - More refusals than so many times the median of earlier periods are a warning. What the host itself was refused always is one.
        type: float
        default: 3.0
  configurations:
    description:
      - Configuration files whose variables are compared with those that were accepted. Names and keyed digests are kept and shown, never
        values. Accept changes with O(accept_baseline).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path of the file; a link is not followed.
        type: str
        required: true
      kind:
        description:
          - V(env) for assignments, V(json) for a JSON document, V(file) for anything else, which is compared as a whole.
        type: str
        choices: [env, json, file]
        default: env
  secrets:
    description:
      - Keys and passwords that are to be replaced from time to time. Their age comes from what is known about them;
        they themselves are never read.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the secret in findings.
        type: str
        required: true
      kind:
        description:
          - What tells when it was replaced. V(file) the time of the file that holds nothing else, V(password) the
            shadow file, V(date) a declared day, V(env) and V(json) a key beside it that holds the day.
        type: str
        choices:
          - file
          - password
          - date
          - env
          - json
        required: true
      path:
        description:
          - File, for V(file), V(env) and V(json).
        type: path
        default: ''
      account:
        description:
          - Account, for V(password).
        type: str
        default: ''
      date:
        description:
          - Day on which it was replaced, for V(date).
        type: str
        default: ''
      date_key:
        description:
          - Key that holds the day, for V(env) and V(json), there with dots between levels.
        type: str
        default: ''
      warning_days:
        description:
          - So many days since it was replaced are a warning.
        type: int
        default: 90
      critical_days:
        description:
          - So many days since it was replaced are critical.
        type: int
  secret_scans:
    description:
      - Folders in which credentials are looked for by pattern. Of what is found only file, line, kind and four
        letters of its digest are shown. Links are not followed, compressed logs are read.
    type: list
    elements: dict
    default: []
    suboptions:
      root:
        description:
          - Absolute path of the folder.
        type: path
        required: true
      files:
        description:
          - V(world_readable) looks into what every account can read, V(all) into everything, as is meant for logs.
        type: str
        choices:
          - world_readable
          - all
        default: world_readable
      exclude:
        description:
          - Patterns of paths below the root that are left out.
        type: list
        elements: str
        default: []
      limit_megabytes:
        description:
          - How much is read at most; what lies beyond is named as not looked at.
        type: int
        default: 512
  lynis_report:
    description:
      - Report of Lynis, as C(/var/log/lynis-report.dat). Its warnings, suggestions and hardening index become a
        finding, with what is new since the report before. Nothing is run; let a timer run C(lynis audit system) as
        root. Empty does not look.
    type: path
    default: ''
  lynis_max_age_days:
    description:
      - A report older than this proves nothing.
    type: int
    default: 35
  lynis_minimum_index:
    description:
      - A hardening index below this is a warning.
    type: int
  openscap_results:
    description:
      - Results of OpenSCAP as C(oscap xccdf eval) writes them with C(--results) or C(--results-arf). Nothing is run.
        Empty does not look.
    type: path
    default: ''
  openscap_content:
    description:
      - Content that C(oscap xccdf eval) evaluates now, such as V(/usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml). Nothing is
        fetched and nothing is corrected. Either this or O(openscap_results). Empty evaluates nothing.
    type: path
    default: ''
  openscap_profile:
    description:
      - Profile of that content, such as V(standard) or V(anssi_np_nt28_minimal).
    type: str
    default: ''
  openscap_timeout_seconds:
    description:
      - How long the evaluation may take.
    type: float
    default: 900.0
  openscap_max_age_days:
    description:
      - Results older than this prove nothing.
    type: int
    default: 35
  sshd:
    description:
      - Options that sshd must really use, with their expected value or a list of allowed ones.
    type: dict
    default: {}
  sshd_policy:
    description:
      - Whether sshd is judged by the built-in rules too (docs/findings.md names them and their sections of the CIS benchmark).
        What O(sshd) declares about an option goes before the rule.
    type: bool
    default: false
  host_policy:
    description:
      - Whether the host is judged by the built-in rules for umasks, the age of passwords and core dumps (docs/findings.md names them and
        their sections of the CIS benchmark).
    type: bool
    default: false
  umask:
    description:
      - What new files of those who log in must be denied at least, as three octal digits in quotes. Empty switches the rule off.
      - Asked with O(host_policy).
    type: str
    default: "0027"
  password_max_days:
    description:
      - Days after which a password has to be changed at the latest. 0 switches the rule off.
      - Asked with O(host_policy).
    type: int
    default: 365
  core_dumps:
    description:
      - Whether programs may leave core dumps, which hold what they had in memory.
      - Asked with O(host_policy).
    type: bool
    default: false
  login_banner:
    description:
      - Whether a warning has to be shown before a log-in, on the console and by sshd, that does not tell which system this is.
      - Asked with O(host_policy).
    type: bool
    default: false
  sshd_connections:
    description:
      - Connections for which sshd is asked too, such as C(user=deploy,host=client,addr=192.0.2.7). For Match blocks that name
        a user, group or address, one is made up.
    type: list
    elements: str
    default: []
  listening:
    description:
      - Sockets that may be reachable from outside, as C(tcp/22), C(udp/123), C(tcp/192.0.2.1:8000), or C(tcp/private:5432)
        where only a private address may be listened on. Without the option, ports are not looked at.
    type: list
    elements: str
  firewall:
    description:
      - V(review) judges the rules of nftables and iptables, those that ufw makes too; with V(required) a firewall that lets unexpected packets in, or
        none at all, is critical.
    type: str
    choices:
      - ignore
      - review
      - required
    default: ignore
  firewall_rules:
    description:
      - All that the firewall may let in, such as C(allow tcp/22 from 192.168.1.0/24). Without the option, that is not compared.
    type: list
    elements: str
  firewall_ignore:
    description:
      - Chains whose rules come and go, as patterns of C(family table chain); they are left out of the comparison with the baseline.
    type: list
    elements: str
    default:
      - '*f2b*'
  endpoints:
    description:
      - Web endpoints that are asked as a client would.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description:
          - URL whose answer is judged; with https, its certificate, protocols and revocation too.
        type: str
        required: true
      trust:
        description:
          - File of an own authority that clients know.
        type: str
      warning_days:
        description:
          - Fewer days left of the served certificate than this are a warning.
        type: float
        default: 30.0
      critical_days:
        description:
          - Fewer days left of the served certificate than this are critical.
        type: float
        default: 7.0
      headers:
        description:
          - Own rules, header to the regular expression that its whole value must match; nothing as value means that it is not judged.
        type: dict
        default: {}
      judge_headers:
        description:
          - Whether headers and cookies are judged.
        type: bool
        default: true
      ocsp:
        description:
          - Whether the authority that the certificate names is asked about revocation. What the server staples is read anyway.
        type: bool
        default: false
  privileged_roots:
    description:
      - Folders below which set-user-id and set-group-id files and file capabilities are compared with the baseline. Other file
        systems below them are not entered.
    type: list
    elements: str
    default: []
  package_integrity:
    description:
      - Whether the files of installed packages are compared with the sums that dpkg keeps, or by C(rpm -Va).
    type: bool
    default: false
  trees:
    description:
      - Folders that must not change. The manifest is made when it is accepted with O(accept_baseline).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path of the folder.
        type: str
        required: true
      exclude:
        description:
          - Patterns of names relative to the folder that may change.
        type: list
        elements: str
        default: []
      severity:
        description:
          - State of a finding that tells changes.
        type: str
        choices:
          - warning
          - critical
        default: critical
  aide:
    description:
      - Whether AIDE compares the host with its database.
    type: bool
    default: false
  aide_config:
    description:
      - Configuration file of AIDE; without it, the one of the distribution.
    type: str
  aide_seconds:
    description:
      - Time that AIDE may take.
    type: float
    default: 600.0
  integrity_seconds:
    description:
      - Time that each walk and the check of packages may take; what was not reached then is C(unknown).
    type: float
    default: 60.0
"""

EXAMPLES = r"""
- name: Review log-ins, files and the certificate of an application
  ops.maintenance.security_review:
    login_sources:
      - name: application
        paths: [/srv/app/logs/*.jsonl]
    files:
      - {path: /srv/app/app.db, mode: "0600", owner: app, sqlite: true}
      - {path: /srv/app/.env, mode: "0600", owner: app, correct: true}
    certificates:
      - path: /etc/ssl/certs/app.crt
        key: /etc/ssl/private/app.key
        hosts: [app.example.com]
        connect: 127.0.0.1:443

- name: Review what the host offers, and what must not have changed
  ops.maintenance.security_review:
    listening: [tcp/22, tcp/443, "tcp/private:5432"]
    firewall: required
    firewall_rules: ["allow tcp/22 from 192.168.1.0/24", allow tcp/443]
    sshd_policy: true
    host_policy: true
    endpoints:
      - url: https://app.example.com/
    privileged_roots: [/usr]
    package_integrity: true
    trees:
      - {path: /srv/app/releases/current, exclude: ["*.pyc"]}

- name: Take the accounts, sudo rules and keys of today for the baseline
  ops.maintenance.security_review:
    updates: false
    journal: "false"
    accept_baseline: true
"""

RETURN = r"""
maintenance_record:
  description: What was found, for the journal.
  returned: always
  type: dict
  sample:
    subject: security
    operation: security_review
    status: ok
    summary: 1 of 1 findings need attention
    before: {}
    after: {}
    findings:
      - id: security.certificate_expiry
        state: critical
        subject: /etc/ssl/certs/app.crt
        summary: it expires in 5.0 days, on 2026-11-26
        value: 5.0
        unit: days
        threshold: warning below 30 days, critical below 7 days, urgent below 14 days
        basis: exact
        as_of: ""
        not_covered: ""
        advice: Renew the certificate and reload the service that uses it.
        evidence: ["subject CN=app.example.com"]
    metrics:
      - {name: security.certificate_days_left, subject: /etc/ssl/certs/app.crt, value: 5.0, unit: days}
    actions: []
    started: "2026-11-21T02:10:00+00:00"
    finished: "2026-11-21T02:10:03+00:00"
"""

from ansible_collections.ops.maintenance.plugins.module_utils import security_review
from ansible_collections.ops.maintenance.plugins.module_utils.entry import run_module


def main():
    run_module(security_review.OPTIONS, security_review.run, subject=security_review.SUBJECT, operation=security_review.OPERATION)


if __name__ == "__main__":
    main()
